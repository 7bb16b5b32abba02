"""How good is it: measurements on patients whose truth is known."""
