# A tmux server without windows yet; its socket is in the directory that it was started in.
echo ready >&2
exec tmux -D -S socket -f /dev/null
