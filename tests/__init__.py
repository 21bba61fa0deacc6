"""A package, so that no `tests` that some distribution left in site-packages is taken for this one."""
