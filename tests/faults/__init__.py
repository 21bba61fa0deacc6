"""Every fault in every activity: the matrix. See `test_matrix.py`."""
