"""From a sweep file to cells and runs, before anything is trained."""
