"""Recordings by HTTP: lists with media facts, bytes in whole or in ranges, pictures, and removal.

routes      the routes, and who may                listing     lists, page by page
opening     a file that is to be sent, and what is known of it  facts   what lists tell of files and recordings
conditions  If-Match and the others (RFC 9110, 13) ranges      Range (RFC 9110, 14)
headers     what goes with the bytes               body        the bytes themselves
removal     DELETE                                 thumbnail   which picture a recording has
models      the documents, for OpenAPI
"""
