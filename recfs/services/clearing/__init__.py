"""Services that clear away what nobody needs any more."""
