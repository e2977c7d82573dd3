//! The image `wharf/hello`, made of a program inside this library when it is first asked for.
