"""What the tests share: a faulty wire, a server that follows a script, waiting, and the search for leaks."""
