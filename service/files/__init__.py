"""Pictures that lie on a disk: found, scored on all cores, and what is written of them.

    finding -> seen -> local or remote -> score_file or printing
    arguments  not     in order, bounded   rows, appended; what is there is not scored again
               twice

For `clicv2 score`, `report` and `select`. Memory is bounded however many pictures there are: nothing here keeps a list
of them.
"""
