"""Where images come from, cut into parts that workers read by themselves."""
