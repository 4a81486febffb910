"""Read-outs of frozen features, scores and their intervals. numpy and torch only."""
