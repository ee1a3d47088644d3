"""`leancore table1`: the systems of the LeanResNet paper's Table 1, trained with an equal budget, and the table.

runs     the folders OUT/MODEL/seedK of the trainings; what a finished one says; runs collected as CSV files
schedule which trainings are to be done, and doing them
timing   training steps of all systems, side by side
report   the table as Markdown, CSV and JSON, and accuracy against parameters
curves   the curves of any runs in one figure
cli      the command
"""
