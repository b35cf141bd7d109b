savedcmd_/work/main/tests/kernel/ptwalk/modules.order := {   echo /work/main/tests/kernel/ptwalk/barlease-ptwalk.o; :; } > /work/main/tests/kernel/ptwalk/modules.order
