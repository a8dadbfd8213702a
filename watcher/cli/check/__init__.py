"""The programs of `watcher check`: the plan of the settings, the trials of `--online`, and the output of both."""
