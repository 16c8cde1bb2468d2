"""Files that appear whole: folders, the store, the Hub, other addresses."""
