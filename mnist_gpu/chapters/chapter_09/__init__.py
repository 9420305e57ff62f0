"""Chapter 09, Memory and overlap."""

EXERCISES = ()
