"""Everything that turns a candidate on a task into numbers: embeddings, conductance, evidence, tuned accuracies."""
