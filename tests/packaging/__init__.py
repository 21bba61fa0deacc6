"""What users install: what is in it, and that it installs and runs with every Python."""
