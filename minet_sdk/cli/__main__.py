"""`python -m minet_sdk.cli`: the command line without its installed script."""

from minet_sdk.cli import main

main()
