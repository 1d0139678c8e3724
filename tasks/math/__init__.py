"""GSM8K and mathematics: questions with one final answer."""
