"""Multiple choice: questions with two to ten options, of which one is right."""
