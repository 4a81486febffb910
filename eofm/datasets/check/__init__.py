"""`eofm data check`: what a folder or a packed store holds, and what is wrong with it."""
