"""What live tests, interop tests and the benchmark stand on: targets, engines, observation of /proc."""
