/work/main/tests/kernel/ptwalk/ptwalk.o
