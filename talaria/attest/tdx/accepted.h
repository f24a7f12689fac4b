#include "talaria/attest/accepted.h"
