"""Files of what was collected: which there are, what they say of themselves, and how they are written."""
