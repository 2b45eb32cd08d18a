"""The page of ``knet demo``: a server for one user, and static files."""
