"""`python -m shoestring`."""

from shoestring.cli import main

main()
