"""CRIU's RPC: requests over a unix socket, turned into the same options that the command line builds."""
