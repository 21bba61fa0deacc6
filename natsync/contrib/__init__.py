"""natsync at home in frameworks: one client a process, made at first use, set from the framework's own settings.

Uses public names of natsync only (and the check of options, which opens nothing). Each module imports its framework,
and nothing else imports the modules.
"""
