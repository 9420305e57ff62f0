// Another language keeps the place: the heading that was read last, by its number, which is the same in all editions.
const headings = () => [...document.querySelectorAll("article h1, article h2, article h3, article h4")];

addEventListener("DOMContentLoaded", () => {
    const wanted = location.hash.match(/^#heading-(\d+)$/);
    if (wanted) {
        headings()[wanted[1]]?.scrollIntoView();
    }
    for (const link of document.querySelectorAll("a.edition")) {
        link.addEventListener("click", () => {
            const above = headings().filter(heading => heading.getBoundingClientRect().top < innerHeight / 3);
            link.hash = above.length > 1 ? `heading-${above.length - 1}` : "";
        });
    }
});

// Paper is white: a page that is dark on the screen is printed as it is when it is light.
let shown;
addEventListener("beforeprint", () => {
    shown = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = shown;
});

// The theme takes the focus from these buttons, so that from the keyboard their menus could not be reached by arrows.
addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll(".theme-switch-button, .primary-toggle, .secondary-toggle")) {
        button.addEventListener("click", event => event.detail || button.focus());
    }
});
