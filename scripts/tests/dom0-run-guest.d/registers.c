// SPDX-License-Identifier: GPL-2.0-only
/*
 * registers SWITCHES: processes fill all vector registers with bytes of
 * their own, give up the CPU so many times, and look whether the bytes are still there.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PROCESSES 6
#define ALL "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"

typedef uint8_t registers[16][32] __attribute__((aligned(32)));

/* Nothing but the system call stands between the loads and the stores. */
__attribute__((target("avx")))
static void yield_with(registers *in, registers *out, long call, long arg)
{
	struct timespec nap = { 0, 1000 };

	__asm__ volatile(".irp n, " ALL "\n\t"
		"vmovdqa 32*\\n(%[in]), %%ymm\\n\n\t"
		".endr\n\t"
		"syscall\n\t"
		".irp n, " ALL "\n\t"
		"vmovdqa %%ymm\\n, 32*\\n(%[out])\n\t"
		".endr\n\t"
		"vzeroupper"
		: "+a" (call)
		: [in] "r" (in), [out] "r" (out), "D" (arg ? &nap : NULL),
		  "S" (0L)
		: "rcx", "r11", "memory",
		  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
		  "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
		  "xmm14", "xmm15");
}

static int child(unsigned int seed, int switches)
{
	registers in, out;

	srand(seed);
	for (int i = 0; i < switches; i++) {
		for (size_t n = 0; i % 20 == 0 && n < sizeof(in); n++)
			((uint8_t *)in)[n] = rand();
		memset(out, 0, sizeof(out));
		/* Now and then a nap: the vCPU itself is given up. */
		yield_with(&in, &out, i % 20 == 19 ? SYS_nanosleep : SYS_sched_yield, i % 20 == 19);
		if (memcmp(in, out, sizeof(in))) {
			printf("process %u: vector registers changed in switch %d\n", seed, i);
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	int switches = argc > 1 ? atoi(argv[1]) : 0, status, bad = 0;

	if (!switches || !__builtin_cpu_supports("avx")) {
		puts("no number of switches, or no AVX here");
		return 2;
	}
	for (int i = 0; i < PROCESSES; i++)
		if (!fork())
			return child(i + 1, switches / PROCESSES);
	while (wait(&status) > 0)
		bad |= status;
	return bad ? 1 : 0;
}
