/* Preloaded into a process: its wall clock is off by SKEW_SECONDS, as on a machine whose clock nobody sets. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int answer = (int)syscall(SYS_clock_gettime, clock, now);
    const char *skew = getenv("SKEW_SECONDS");
    if (answer == 0 && clock == CLOCK_REALTIME && skew)
        now->tv_sec += atol(skew);
    return answer;
}
