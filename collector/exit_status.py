"""The exit statuses of every command."""

DONE = 0
FOUND_WRONG = 1  # it did its work and found something wrong, or could not get at what it needs
UNUSABLE = 2  # wrong usage or settings: nothing was done
