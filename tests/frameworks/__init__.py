"""natsync in Flask, Django and Celery: the real frameworks, under their real servers."""
