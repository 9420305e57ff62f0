"""Chapter 12, The last factor."""

EXERCISES = ()
