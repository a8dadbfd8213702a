"""`watcher wait`: it follows one execution by the daemon's rules, without a store and without sinks."""
