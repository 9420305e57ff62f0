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
