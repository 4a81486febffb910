"""What the verbs that pack a data set have in common."""
