"""Words that options of several commands share."""

CONFIG_HELP = "The YAML file. Else $WATCHER_CONFIG, ./watcher.yaml, /etc/watcher/watcher.yaml."
