"""A run or a workspace as one page for people: facts, pictures of them, and the page."""
