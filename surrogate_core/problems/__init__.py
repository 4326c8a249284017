"""Black boxes: those that ship with the project, and those that users name."""
