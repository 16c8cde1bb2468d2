"""From candidates' accuracies on a proxy to a decision: which to train on everything, and how sure one can be."""
