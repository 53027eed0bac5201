"""What labelled target images say: transferability scores."""
