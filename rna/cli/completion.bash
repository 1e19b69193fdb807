# Completes `rna …`, and `python -m rna.run …` and its like; any other `python …` as it was before.
# eval "$(rna completion bash)"

# The words up to the cursor as they were typed: readline's own end at each = and :
_rna_words() {
  local line=${COMP_LINE:0:COMP_POINT} word='' quote='' letter i
  RNA_WORDS=()
  for ((i = 0; i < ${#line}; i++)); do
    letter=${line:i:1}
    if [[ -n $quote ]]; then
      if [[ $letter == "$quote" ]]; then quote=''; else word+=$letter; fi
    elif [[ $letter == [\'\"] ]]; then
      quote=$letter
    elif [[ $letter == ' ' || $letter == $'\t' ]]; then
      [[ -n $word ]] && RNA_WORDS+=("$word")
      word=''
    else
      word+=$letter
    fi
  done
  RNA_WORDS+=("$word")
}

# What `"$@" complete WORDS…` offers, without what readline has left behind of the word.
_rna_offer() {
  local word=${RNA_WORDS[${#RNA_WORDS[@]} - 1]} behind='' one
  COMPREPLY=()
  if [[ $word == *[=:]* && $COMP_WORDBREAKS == *=* ]]; then behind=${word%"${word##*[=:]}"}; fi
  while IFS= read -r one; do
    [[ -n $one ]] && COMPREPLY+=("${one#"$behind"}")
  done < <("$@" 2>/dev/null)
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./,] ]]; then compopt -o nospace 2>/dev/null; fi
}

_rna() {
  local RNA_WORDS
  _rna_words
  _rna_offer "${RNA_WORDS[0]/#\~/$HOME}" complete rna "${RNA_WORDS[@]:1}"
}

_rna_python() {
  local RNA_WORDS i module
  _rna_words
  for ((i = 1; i < ${#RNA_WORDS[@]} - 1; i++)); do
    [[ ${RNA_WORDS[i]} == -m ]] || continue
    module=${RNA_WORDS[i + 1]}
    if ((i + 1 == ${#RNA_WORDS[@]} - 1)); then
      [[ $module == rna* ]] || break
      _rna_offer "${RNA_WORDS[0]/#\~/$HOME}" -m rna complete -m "$module"
      return
    elif [[ $module == rna || $module == rna.* ]]; then
      _rna_offer "${RNA_WORDS[0]/#\~/$HOME}" -m rna complete $module "${RNA_WORDS[@]:i+2}"
      return
    fi
    break
  done
  _rna_python_before "$@"
}

# The completion of python that was there; bash-completion loads its own when it is first wanted, in our place.
_rna_python_before() {
  local found
  COMPREPLY=()
  if [[ -z ${RNA_PYTHON_BEFORE+set} ]]; then
    RNA_PYTHON_BEFORE=''
    if declare -F _comp_load >/dev/null; then _comp_load python; elif declare -F _completion_loader >/dev/null; then _completion_loader python; fi
    found=$(complete -p python 2>/dev/null)
    [[ $found =~ -F\ ([^ ]+) && ${BASH_REMATCH[1]} != _rna_python ]] && RNA_PYTHON_BEFORE=${BASH_REMATCH[1]}
    complete -o bashdefault -o default -F _rna_python python python3
  fi
  [[ -n $RNA_PYTHON_BEFORE ]] && "$RNA_PYTHON_BEFORE" "$@"
  return 0
}

if [[ $(complete -p python 2>/dev/null) =~ -F\ ([^ ]+) && ${BASH_REMATCH[1]} != _rna_python ]]; then
  RNA_PYTHON_BEFORE=${BASH_REMATCH[1]}
fi
complete -o bashdefault -o default -F _rna rna
complete -o bashdefault -o default -F _rna_python python python3
