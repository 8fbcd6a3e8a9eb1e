"""Each kernel beside what a user would otherwise run, in one process."""
