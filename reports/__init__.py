"""The report of a run: verdict, figures, exports and the HTML page, made from its folder alone.

`reports.page.write_report` is the way in. Nothing here imports a backend or a framework.
"""
