"""The screens of the console, one a view, and the dialogs over them."""
