# Completes `rna …`, and `python -m rna.run …` and its like; any other `python …` as it was before.
# eval "$(rna completion zsh)"   behind compinit

# What `"$@"` offers: words to be gone on with stand without a space behind them. Nothing: a file behind the = may.
_rna_offer() {
  local -a found more done
  found=("${(@f)$("$@" 2>/dev/null)}")
  found=(${found:#})
  if (( ! $#found )); then
    compset -P '*='
    _files
    return
  fi
  more=(${(M)found:#*[=./,]})
  done=(${found:#*[=./,]})
  (( $#more )) && compadd -Q -S '' -- $more
  (( $#done )) && compadd -Q -- $done
  return 0
}

_rna() {
  _rna_offer ${(Q)words[1]/#\~/$HOME} complete rna "${(@Q)words[2,CURRENT]}"
}

_rna_python() {
  local i module
  for ((i = 2; i < CURRENT; i++)); do
    [[ $words[i] == -m ]] || continue
    module=${(Q)words[i+1]}
    if (( i + 1 == CURRENT )); then
      [[ $module == rna* ]] || break
      _rna_offer ${(Q)words[1]/#\~/$HOME} -m rna complete -m "$module"
      return
    elif [[ $module == rna || $module == rna.* ]]; then
      _rna_offer ${(Q)words[1]/#\~/$HOME} -m rna complete $module "${(@Q)words[i+2,CURRENT]}"
      return
    fi
    break
  done
  if [[ -n $_rna_python_before ]]; then
    $_rna_python_before "$@"
  else
    _default
  fi
}

if (( $+functions[compdef] )); then
  [[ ${_comps[python]:-_rna_python} == _rna_python ]] || typeset -g _rna_python_before=${_comps[python]}
  compdef _rna rna
  compdef _rna_python python python3
fi
