"""The tasks that the pipeline runs, one a file."""
