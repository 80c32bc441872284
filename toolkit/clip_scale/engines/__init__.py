"""Where parts are classified: engines take tasks and give back what is done, in any order."""
