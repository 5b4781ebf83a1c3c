"""What others have made of the same work, one file each: measured beside the project's own backends where it
is installed, and absent without complaint where it is not. Importing this package imports none of them.
"""
