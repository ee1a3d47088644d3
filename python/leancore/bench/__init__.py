"""`leancore bench`: the operator against this machine's limits and against other ways to compute the same.

``limits`` what the machine can do · ``cases`` the workloads and their arithmetic · ``peers`` the candidates ·
``timing`` how they are timed · ``measure`` checks, then times them in turns · ``bars`` the goals of the kernels ·
``report`` tables, JSON and the plot · ``cli`` the commands. Nothing here imports torch before it is needed, and without
torch leancore is still measured, on NumPy arrays.
"""
