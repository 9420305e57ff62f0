"""The chapters' exercises: what checks an answer, and says what may be the matter with a wrong one."""
